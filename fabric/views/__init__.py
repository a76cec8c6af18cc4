"""Pages, by audience. Each view: who may, what was asked, one call of a service, one template."""
