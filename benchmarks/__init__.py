"""One script a claim: each measures and writes a results file, a table and a picture."""
