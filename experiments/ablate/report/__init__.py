"""The report: everything in one offline HTML page."""
