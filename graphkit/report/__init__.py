"""What was found, as text, JSON and pages: every report has a room of its own."""
