"""From what a user holds to a `Model`: one file per kind of source, one registry that looks at content."""
