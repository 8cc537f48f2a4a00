"""The compiler: it turns a light and a large model into a bundle."""
