"""The configuration: its schema, how it is composed and where its groups are found."""
