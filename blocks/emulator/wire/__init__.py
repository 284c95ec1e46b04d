"""HTTP as every dialect needs it: errors, bodies, uploads, downloads, and the faults of whole calls."""
