"""One file per dataset; each offers its classes, templates, metrics and named splits."""
