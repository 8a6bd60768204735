"""The document model of a report and its renderers: Markdown, HTML, LaTeX and terminal."""
