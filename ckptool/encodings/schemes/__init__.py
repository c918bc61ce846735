"""One file per scheme, each with a `SCHEME`, which the registry finds: names, layouts, formulas of the writers."""
