"""Pictures: pure functions from what a journal says to Altair charts; none knows Streamlit."""
