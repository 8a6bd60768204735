// Excerpts of what a search found are fetched, which only a server can answer.
DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol.startsWith("http");
