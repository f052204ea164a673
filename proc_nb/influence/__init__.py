"Which practice taught this answer?"
