"""The dashboard: pages by question, cards, and the one file that draws."""
