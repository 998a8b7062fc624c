"""Are the machines well? Checks as data, and pure judgement of what a survey found."""
