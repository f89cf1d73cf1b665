"""What a slice shows: phases, confidence, numbers, report. Arrays with a pixel size in, numbers out; knows nothing of microscopes."""
