"""The dashboard's door: `streamlit run app.py -- --store FOLDER`."""

from trainvitals.views.dashboard import main

main()
