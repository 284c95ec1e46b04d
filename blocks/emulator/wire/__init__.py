"""HTTP helpers for all dialects: errors, bodies, uploads, downloads, and faults of whole calls."""
