"""Tables, JUnit."""
