package api

// TopicName is what a request's path names.
var TopicName = topicName
