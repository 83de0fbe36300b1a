"""Reports: tables, JUnit, Markdown, HTML."""
