"""One attempt on one node, from launch to sweep."""
