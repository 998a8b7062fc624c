"""A study on paper: systems x strategies x runtimes of a mixture of experts."""
