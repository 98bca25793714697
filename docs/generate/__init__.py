"""Pages that are made from code and catalogue, and the site that is built of all pages."""
