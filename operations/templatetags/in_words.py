"""What the templates of the page say in words."""

from django import template

from operations import pages, words

register = template.Library()
for _words in (words.span, words.bytes_of, pages.progress, pages.share, pages.what_it_is):
    register.filter(_words.__name__, _words)
