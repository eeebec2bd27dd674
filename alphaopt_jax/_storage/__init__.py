"""Files: parameters with checksums, atomic writes, and the folders of long runs."""
