variable "name" {
  type        = string
  description = "What the names of the stores end with; the network alone sees them."
}

variable "network_id" {
  type        = string
  description = "The network."
}

variable "stores" {
  type        = map(string)
  description = "The stores by their names, each with where clients reach it; of several places the first."
}

resource "aws_route53_zone" "this" {
  # checkov:skip=CKV2_AWS_38: Nobody outside of the network can ask a private zone.
  # checkov:skip=CKV2_AWS_39: What pods ask for is logged by the DNS of the cluster.
  name = var.name

  vpc {
    vpc_id = var.network_id
  }
}

# The Service of each store leads here, so that programs know none of the provider's names.
resource "aws_route53_record" "this" {
  for_each = var.stores
  zone_id  = aws_route53_zone.this.zone_id
  name     = each.key
  type     = "CNAME"
  ttl      = 60
  records  = [regex("^(?:[a-z+]+://)?([^:,/]+)", each.value)[0]]
}
