"""Requests and answers: what needs starlette and uvicorn."""
