"""The SOAR studies."""
