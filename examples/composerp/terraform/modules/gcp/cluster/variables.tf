variable "name" {
  type        = string
  description = "The name of the cluster."
}

variable "project" {
  type        = string
  description = "The project."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "zones" {
  type        = list(string)
  description = "The zones of the nodes."
}

variable "kubernetes_version" {
  type        = string
  description = "The minor version of Kubernetes."
}

variable "network_id" {
  type        = string
  description = "The network."
}

variable "subnet_id" {
  type        = string
  description = "The private subnet of the nodes."
}

variable "kms_key_id" {
  type        = string
  description = "The key that encrypts Secrets and volumes."
}

variable "private_api" {
  type        = bool
  description = "Whether the API server has a private address only."
}

variable "api_addresses" {
  type        = list(string)
  description = "Who may reach the API server, as CIDR blocks."
  default     = []
}

variable "pools" {
  type = map(object({
    count        = number
    machine_type = string
    zones        = list(string)
    dedicated    = bool
  }))

  description = "The node pools; their nodes are spread evenly over their zones."
}
