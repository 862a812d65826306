"""The web pages for people, and the API's merged description."""
