"""The page that finds faces and reads expressions in a browser: its files and their server."""
