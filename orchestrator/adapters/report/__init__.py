"""What a finished run looks like on paper: JSON, Markdown, one-file HTML."""
