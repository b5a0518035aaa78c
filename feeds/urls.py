from django.urls import path

from feeds.api import feed, views

# What cannot be a user's id, a slash in it for one, is refused in words: hence <text:…>.
urlpatterns = [
    path("posts", views.PostsView.as_view()),
    path("posts/<str:post_id>", views.PostView.as_view()),
    path("follow", views.FollowView.as_view()),
    path("feeds/<text:user_id>", feed.FeedView.as_view()),
    path("users/<text:user_id>/following", views.FollowingView.as_view()),
    path("users/<text:user_id>/followers", views.FollowersView.as_view()),
]
