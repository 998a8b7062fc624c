"""Telling people: webhooks, mail, and the services that apprise knows."""
