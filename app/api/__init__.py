"""HTTP routes under /api: uploads, downloads, states to poll, health."""
