"""Providers on loopback: control planes that speak their APIs, for clients and workers that are real."""
