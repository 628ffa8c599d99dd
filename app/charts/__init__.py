"""DataFrame -> altair.Chart, and what a chart needs computed first; pure functions that know no page."""
