"""The site of the admin: its login is throttled."""
