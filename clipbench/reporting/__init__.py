"""From records to people: tables, figures, pages, TensorBoard and the doctor."""
