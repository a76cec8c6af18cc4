"""The portal and the Django project: inventory, pages, settings, and where errors become answers."""
