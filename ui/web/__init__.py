"""The Streamlit interface: reads run directories, draws them, writes commands; decides nothing."""
