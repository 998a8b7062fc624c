"""From figures to the result object, the report's sections and its charts. Pure."""
