"""Markup, colours and drawing that reports, certificates and the door's pages share."""
