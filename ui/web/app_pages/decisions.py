"""Decisions: to be written."""

import streamlit as st

st.title("decisions")
