# From platform.regions.primary, in production

variable "administrator_arns" {
  type        = set(string)
  description = "The IAM roles that administrate the cluster."
}

variable "kafka_secret_arns" {
  type        = set(string)
  description = "The secrets of the clients of Kafka: their names begin with AmazonMSK_; empty until they are there."
  default     = []
}
