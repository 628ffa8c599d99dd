"""Draw something on a page, return a value. Know no page."""
