"""What a message means: entries with a proof each, found by a pasted text; the glossary and the reading list.

from course_utils import library

library.explain("index out of range in self")   # why, what to do, and the lesson
library.all_messages()                           # all, each brought about and cured now
"""
