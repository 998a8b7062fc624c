"""Metrics of runs, nodes, nights and history for Prometheus; files for Prometheus and Grafana."""
