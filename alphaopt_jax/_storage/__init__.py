"""Files: parameters with checksums, atomic writes, and folders of long runs."""
