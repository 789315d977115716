"""What people look at: instances drawn on pictures, figures as SVG, and the HTML page of a run."""
