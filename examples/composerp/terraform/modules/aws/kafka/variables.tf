variable "name" {
  type        = string
  description = "The name of the brokers."
}

variable "engine_version" {
  type        = string
  description = "The version, as the provider writes it."
}

variable "instance_class" {
  type        = string
  description = "The machine of each broker."
}

variable "size" {
  type        = number
  description = "The size of each broker's volume, in GiB."
}

variable "members" {
  type        = number
  description = "How many brokers; a multiple of the number of zones."
}

variable "replication" {
  type        = number
  description = "On how many brokers each topic is kept."
}

variable "in_sync" {
  type        = number
  description = "How many of them must have a message before it is acknowledged."
}

variable "network_id" {
  type        = string
  description = "The network."
}

variable "subnet_ids" {
  type        = list(string)
  description = "The data subnets."
}

variable "client_security_group_id" {
  type        = string
  description = "The security group of the nodes, which alone may connect."
}

variable "kms_key_arn" {
  type        = string
  description = "The key that encrypts the data."
}

variable "client_secret_arns" {
  type        = set(string)
  description = "The secrets with the username and the password of each client: their names begin with AmazonMSK_, and the same key encrypts them."
  default     = []
}

variable "require_tls" {
  type        = bool
  description = "Whether plain text is refused."
}
