"""The nouns: frozen values and pure functions. No file, network, clock or torch in here."""
